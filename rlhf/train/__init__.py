"""The three stages. Scripts wire, these modules sequence, `rlhf.ops` computes."""
