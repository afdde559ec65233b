"""Names of number formats and what belongs to them; needs no torch."""

from collections.abc import Mapping
from types import MappingProxyType

BLOCKS: Mapping[str, int] = MappingProxyType({"mxfp8": 32, "mxfp4": 32, "nvfp4": 16})  # values that share a scale
LIBRARY_FORMATS = ("llm_int8", "nf4")  # of bitsandbytes
