{{ config(materialized='ephemeral') }}
select items.item_id, items.order_id, items.product_id, items.quantity,
    items.quantity * products.price_cents as item_cents
from {{ ref('stg_items') }} items
join {{ ref('stg_products') }} products on products.product_id = items.product_id
