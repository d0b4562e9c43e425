select id as product_id, title, kind, price_cents
from {{ ref('raw_products') }}
