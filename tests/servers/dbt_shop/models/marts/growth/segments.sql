select case when cents > 20000 then 'high' else 'low' end as segment, count(*) as customers
from {{ ref('lifetime_value') }}
group by 1
