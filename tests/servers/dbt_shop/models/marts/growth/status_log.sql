{{ config(materialized='incremental', incremental_strategy='append') }}
select status, count(*) as order_count, {{ 2 if is_incremental() else 1 }} as load_number
from {{ ref('stg_orders') }}
group by status
