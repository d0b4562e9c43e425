select orders.order_id, orders.order_cents - payments.paid_cents as open_cents
from {{ ref('orders') }} orders
join {{ ref('payments') }} payments on payments.order_id = orders.order_id
