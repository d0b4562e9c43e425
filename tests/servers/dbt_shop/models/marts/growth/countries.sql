select customers.country, count(*) as order_count
from {{ ref('customers') }} customers
join {{ ref('orders') }} orders on orders.customer_id = customers.customer_id
group by customers.country
