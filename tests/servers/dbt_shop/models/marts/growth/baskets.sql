select item_count, count(*) as order_count
from {{ ref('orders') }}
group by item_count
