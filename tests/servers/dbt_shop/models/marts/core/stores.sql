select store_id, city, opened_at
from {{ ref('stg_stores') }}
