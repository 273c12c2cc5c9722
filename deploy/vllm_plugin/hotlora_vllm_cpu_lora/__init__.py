"""Corrected and faster CPU LoRA operators for vLLM, loaded by vLLM itself through `vllm.general_plugins`.

Read in this order: register (what vLLM calls at start), compatibility (which vLLM it accepts), punica_wrapper
(the class that replaces vLLM's), routing (which rows use which adapter), packing (the weights as the
operators want them), operators (the arithmetic). Nothing is imported here, so that looking at the package
costs nothing.
"""
