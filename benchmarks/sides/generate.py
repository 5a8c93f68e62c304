"""transformers' own generate, one request after another: prints tokens a second."""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

REQUESTS = 8


def main() -> None:
    folder, new_tokens, *texts = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(number: int) -> None:
        messages = [{"role": "user", "content": f"{texts[number % len(texts)]} {number}"}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        inputs.pop("token_type_ids", None)
        count = int(new_tokens)
        out = model.generate(
            **inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
        assert out.shape[1] == inputs["input_ids"].shape[1] + count

    answer(0)  # the first is slower
    started = time.perf_counter()
    for number in range(REQUESTS):
        answer(number)
    print(REQUESTS * int(new_tokens) / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
