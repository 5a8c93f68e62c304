"""Drafts verified by the forward pass that prefills them, and the distributions recorded that make the next drafts.

Source: arXiv:2302.01318; `rlhf.ops.speculative` has the rule and why it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlhf.data.transfer import moved, moved_together
from rlhf.ops.logprobs import sample_inverse_cdf, sampling_logits
from rlhf.ops.speculative import accepted, residual_logits
from rlhf.rollout.drafts import AnswerDraft, largest
from rlhf.rollout.sequences import ActiveSequence, Decoding


def probabilities_of(logits: Tensor, decoding: Decoding) -> Tensor:
    """The distribution that tokens are drawn from, [N, V] float32, of logits [N, V]."""
    cut = sampling_logits(logits, temperature=decoding.temperature, top_k=decoding.top_k, top_p=decoding.top_p)
    return cut.softmax(-1)


def verify(answers: Sequence[ActiveSequence], logits: Tensor, firsts: Sequence[int], eos_id: int) -> None:
    """Appends to each answer the tokens of its draft up to the first that is rejected.

    Shapes: logits [M, V] float32; those of answer i are from row `firsts[i]` on, one before each token of its draft and
            one after the last.
    """
    pairs = [(answer, first) for answer, first in zip(answers, firsts, strict=True) if answer.proposed]
    drafted, device = [answer for answer, _ in pairs], logits.device
    places = np.concatenate([first + np.arange(answer.proposed) for answer, first in pairs])
    tokens = np.concatenate([_draft(answer).tokens[: answer.proposed] for answer in drafted]).astype(np.int64)
    host = {
        "places": places,
        "tokens": tokens,
        "kept": np.concatenate([_draft(answer).own(answer.proposed) for answer in drafted]),
        "chances": np.concatenate([answer.chances[: answer.proposed] for answer in drafted]),
    }
    sent = moved_together({name: torch.from_numpy(values) for name, values in host.items()}, device)
    probabilities = probabilities_of(logits.index_select(0, sent["places"]), _one_decoding(drafted))
    new = probabilities.gather(1, sent["tokens"][:, None]).squeeze(1)
    fits = accepted(sent["kept"], new, sent["chances"])
    verdicts = torch.stack([fits.double(), new.log().double()]).cpu().numpy()  # the host waits for the device
    begins = np.cumsum([0, *(answer.proposed for answer in drafted)]).tolist()
    for answer, begin, end in zip(drafted, begins, begins[1:], strict=False):
        _append(answer, tokens[begin:end].tolist(), verdicts[:, begin:end], eos_id)
    rows = np.concatenate([begin + np.arange(each.num_accepted) for each, begin in zip(drafted, begins, strict=False)])
    if not len(rows):
        return
    chosen = probabilities.index_select(0, moved(torch.from_numpy(rows), device))
    _record(drafted, [answer.num_accepted for answer in drafted], chosen)


def _append(answer: ActiveSequence, tokens: list[int], verdicts: np.ndarray, eos_id: int) -> None:
    """Appends the tokens before the first that does not fit; the answer may end there.

    Shapes: verdicts [2, n]: whether each token fits, and its log-probability.
    """
    fits, logprobs = verdicts
    count = int(fits.argmin()) if not fits.all() else len(tokens)
    for token, logprob in zip(tokens[:count], logprobs.tolist(), strict=False):
        answer.append(token, logprob, eos_id)
        if answer.ended:
            break
    answer.num_accepted = len(answer.tokens)


def _draft(answer: ActiveSequence) -> AnswerDraft:
    assert answer.draft is not None
    return answer.draft


def replace_rejected(answers: Sequence[ActiveSequence], logits: Tensor, uniform: Tensor, drawn: Tensor) -> None:
    """Draws the tokens that take the places of rejected ones from the residual distribution, into drawn [2, B].

    Shapes: logits [B, V] float32 and uniform [B] are those of the answers' next tokens.
    """
    rows = [row for row, answer in enumerate(answers) if answer.num_accepted < answer.proposed]
    if not rows:
        return
    vocabulary, device = logits.shape[1], logits.device
    places = moved(torch.tensor(rows), device)
    kept = np.stack([_draft(answers[row]).row(answers[row].num_accepted, vocabulary) for row in rows])
    decoding = _one_decoding([answers[row] for row in rows])
    probabilities = probabilities_of(logits.index_select(0, places), decoding)
    residual = residual_logits(probabilities, moved(torch.from_numpy(kept), device))
    tokens = sample_inverse_cdf(residual, uniform.index_select(0, places), checks=False).tokens
    logprobs = probabilities.gather(1, tokens[:, None]).squeeze(1).log()
    drawn.index_copy_(1, places, torch.stack([tokens.double(), logprobs.double()]))


def _one_decoding(answers: Sequence[ActiveSequence]) -> Decoding:
    decodings = {answer.decoding for answer in answers}
    assert len(decodings) == 1, "drafts of one rollout are drawn with one setting"
    return decodings.pop()


def record_drawn(answers: Sequence[ActiveSequence], logits: Tensor) -> None:
    """Records the distributions behind logits [B, V] of the next token of each answer that is to be a draft."""
    wanting = [row for row, each in enumerate(answers) if each.rows is not None and not each.ended]
    if not wanting:
        return
    chosen = [answers[row] for row in wanting]
    if len(wanting) < len(logits):
        logits = logits.index_select(0, moved(torch.tensor(wanting), logits.device))
    _record(chosen, [1] * len(chosen), probabilities_of(logits, _one_decoding(chosen)))


def _record(answers: Sequence[ActiveSequence], counts: Sequence[int], probabilities: Tensor) -> None:
    """Records the distributions [N, V] of the next `counts` tokens of each answer."""
    rows = [answer.rows for answer in answers if answer.rows is not None]
    assert len(rows) == len(answers), "an answer with a draft is to be a draft"
    values, ids = largest(probabilities, rows[0].top)
    begin = 0
    for each, count in zip(rows, counts, strict=True):
        if count:
            each.add(values[begin : begin + count], None if ids is None else ids[begin : begin + count])
        begin += count
