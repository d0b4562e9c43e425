select method, sum(paid_cents) as cents
from {{ ref('payments') }}
group by method
