select id as item_id, order_id, product_id, quantity
from {{ ref('raw_items') }}
