select stores.city, days.ordered_at, days.order_count
from {{ ref('int_store_days') }} days
join {{ ref('stores') }} stores on stores.store_id = days.store_id
