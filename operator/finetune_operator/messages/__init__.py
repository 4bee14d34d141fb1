"""Every Event, status message, error, and hint of the operator, one function or constant each.

Decisions and tests refer to them by name (`messages.epoch_completed`), and pages of
`docs/reference` are generated from them. A message consists of complete sentences that say what
happened and where; a hint says what to do. Neither ends with a period, because both are put after a
colon or into a table.
"""

from finetune_operator.messages.errors import *
from finetune_operator.messages.events import *
from finetune_operator.messages.refusals import *
from finetune_operator.messages.serving import *
from finetune_operator.messages.status import *
