-- The health check of a FineTune for Argo CD. Add it to the ConfigMap argocd-cm:
--
--   data:
--     resource.customizations.health.finetune.dev_FineTune: |
--       <this file>
--
-- A cancelled FineTune is Suspended, not Healthy, because the model that a later sync wave waits for
-- does not exist.
local statuses = {
  pending = "Progressing",
  running = "Progressing",
  succeeded = "Healthy",
  failed = "Degraded",
  cancelled = "Suspended",
}
local health = {status = "Progressing", message = "waiting for the operator"}
if obj.status == nil or obj.status.state == nil then
  return health
end
health.status = statuses[obj.status.state] or "Unknown"
health.message = obj.status.message or obj.status.state
if obj.status.state == "pending" and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Suspended" and condition.status == "True" then
      health.status = "Suspended"
    end
  end
end
return health
