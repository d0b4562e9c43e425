select date_trunc('month', first_ordered_at) as month, count(*) as customers
from {{ ref('customers') }}
group by 1
