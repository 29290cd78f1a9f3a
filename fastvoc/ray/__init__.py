"""Corpora and services beyond one machine, on Ray: an optional dependency, `pip install "fastvoc[ray]"`.

```
report = fastvoc.ray.vocode(ray.data.read_parquet("mels"), "hifigan", output="wavs", format="wav")
codes = fastvoc.ray.encode(dataset, "encodec")   # a dataset with the column "codes"
serve.run(fastvoc.ray.Service.bind("hifigan"))
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvoc.runtime.names import lazy

if TYPE_CHECKING:
    from fastvoc.ray.jobs import decode as decode
    from fastvoc.ray.jobs import encode as encode
    from fastvoc.ray.jobs import vocode as vocode
    from fastvoc.ray.report import Report as Report
    from fastvoc.ray.service import Service as Service

_HOMES = {"jobs": ("decode", "encode", "vocode"), "report": ("Report",), "service": ("Service",)}

if not TYPE_CHECKING:
    __all__, __getattr__, __dir__ = lazy(globals(), _HOMES)
