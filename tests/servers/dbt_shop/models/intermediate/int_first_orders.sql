{{ config(materialized='view', tags=['intermediate']) }}
select customer_id, min(ordered_at) as first_ordered_at
from {{ ref('stg_orders') }}
group by customer_id
