select ordered_at
from {{ ref('revenue_daily') }}
where cents <= 0
