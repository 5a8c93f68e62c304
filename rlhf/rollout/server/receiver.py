"""Methods that vLLM adds to its workers (`worker_extension_cls`): they load the trainer's weights bucket by bucket."""

from __future__ import annotations

from typing import Any

from .readers import WeightReader, open_reader


class WeightReceiver:
    """Loads weights through vLLM's layerwise reload, which undoes what loading did to a layer (on a CPU the weights are
    packed) and keeps the tensors that captured graphs read.

    The names begin with `rollout_`, because vLLM refuses an extension that hides one of a worker's own.
    """

    device: Any
    vllm_config: Any
    model_runner: Any
    rank: int
    rollout_reader: WeightReader

    def rollout_begin(self, transport: dict[str, Any]) -> None:
        """A push begins."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        self.rollout_reader = open_reader(transport, self.device, self.rank)
        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(self.model_runner.get_model())

    def rollout_bucket(self, bucket: dict[str, Any]) -> None:
        """Some of the weights, named as in a checkpoint."""
        from vllm.config import set_current_vllm_config

        weights = self.rollout_reader.read(bucket)
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.get_model().load_weights(weights)

    def rollout_finish(self) -> None:
        """All weights were sent."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(self.model_runner.get_model(), self.vllm_config.model_config)
        self.rollout_reader.close()
