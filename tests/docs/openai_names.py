"""Names in OpenAI's fine-tunes API, from its last specification and client (0.28.1)."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMMANDS = _names("create list get events follow cancel delete results prepare_data")
FIELDS = _names(
    """id created_at updated_at model fine_tuned_model organization_id status hyperparams
    training_files validation_files result_files events training_file validation_file n_epochs
    batch_size learning_rate_multiplier prompt_loss_weight compute_classification_metrics
    classification_n_classes classification_positive_class classification_betas
    suffix use_packing"""
)
STATES = _names("pending running succeeded failed cancelled")
EVENTS = (
    "Created fine-tune",
    "Fine-tune costs",
    "Fine-tune enqueued. Queue number",
    "Fine-tune is in the queue",
    "Fine-tune started",
    "Completed epoch",
    "Uploaded model",
    "Uploaded result file",
    "Fine-tune succeeded",
    "Fine-tune cancelled",
    "Fine-tune failed",
)
