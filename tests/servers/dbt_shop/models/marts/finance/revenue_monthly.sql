select date_trunc('month', ordered_at) as month, sum(cents) as cents
from {{ ref('revenue_daily') }}
group by 1
