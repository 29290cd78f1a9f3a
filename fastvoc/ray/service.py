"""A vocoder behind Ray Serve.

```
serve.run(Service.options(num_replicas=2, ray_actor_options={"num_cpus": 4}).bind("hifigan", rate=8000, format="mulaw"))
```

`Service` is a deployment of `Replica`, which has the arguments of `bind` and the methods of a handle: `vocode` and
`stream`. `ray_actor_options` give a replica its CPUs, and so its threads, and its GPU, where the model then runs.
"""

from __future__ import annotations

from fastvoc.ray.package import import_ray
from fastvoc.ray.replica import Replica

Service = import_ray("serve").deployment(name="fastvoc", max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})(
    Replica
)
