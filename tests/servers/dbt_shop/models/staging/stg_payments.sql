select id as payment_id, order_id, method, paid_cents
from {{ ref('raw_payments') }}
