select product_id, title, kind, price_cents
from {{ ref('stg_products') }}
