"""DeepSpeed and torch.distributed: trained and frozen models under ZeRO, ranks, saved state. Nowhere else.

May import: models, and the layers below.
"""

import logging

# DeepSpeed says so in every process that imports it on a CPU; a run says which device it chose.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
