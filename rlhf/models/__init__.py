"""Hugging Face models as this project uses them: loaded, packed, adapted, scored. No DeepSpeed in here."""
