select item_id, order_id, product_id, quantity, item_cents
from {{ ref('int_priced_items') }}
