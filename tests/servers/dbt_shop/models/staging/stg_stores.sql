select id as store_id, city, cast(opened_at as date) as opened_at
from {{ ref('raw_stores') }}
