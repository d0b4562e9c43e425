{{ config(materialized='view', tags=['intermediate']) }}
select store_id, ordered_at, count(*) as order_count
from {{ ref('stg_orders') }}
group by store_id, ordered_at
