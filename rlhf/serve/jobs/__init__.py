"""Files and fine-tuning jobs of the service.

May import: train, plan, web, and the layers below.
"""
