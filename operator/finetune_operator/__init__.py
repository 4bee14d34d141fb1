"""The operator: turns FineTunes into Jobs, and what happens to those into status and Events.

The rule of this room: no S3, no Secrets, no finalizers. One function for every trigger:
observe -> decide -> act -> one status write -> Events. Layers, each importing only what is below:
main -> handlers -> kube -> core -> build -> settings -> finetune_api.
"""
