select payment_id, order_id, method, paid_cents
from {{ ref('stg_payments') }}
