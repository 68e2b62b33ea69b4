"""docker-archive: what `docker save` writes and every `docker load` since 1.10 reads.

Such a tar holds a config and layers, and mostly no manifest: engines throw manifests away. So the
image ID, which is the config's digest, and the tags always survive, checked; the digest that the
registry knows does so only where the archive has the original manifest too (`docker save` from
Docker's containerd store, `ctr export`, buildx). Else a manifest is made here, the same one each
time, and says on its index.json entry that it was: `synthesised`. This is the one place of
ocimirror where a manifest is written.

Refused: layers and configs that are not what the archive itself says of them, links that lead
outside it, and what Docker before 1.10 saved.

Begin with read.py; write.py is the way back.
"""
