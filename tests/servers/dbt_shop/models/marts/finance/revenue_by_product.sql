select products.title, sum(items.item_cents) as cents
from {{ ref('items') }} items
join {{ ref('products') }} products on products.product_id = items.product_id
group by products.title
