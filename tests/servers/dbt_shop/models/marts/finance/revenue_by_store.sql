select stores.city, sum(orders.order_cents) as cents
from {{ ref('orders') }} orders
join {{ ref('stores') }} stores on stores.store_id = orders.store_id
group by stores.city
