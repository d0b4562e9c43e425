{{ config(materialized='table', tags=['odd']) }}
select {{ 'order_id' if env_var('SHOP_MENDED', '') else 'nothing_of_that_name' }} as order_id
from {{ ref('orders') }}
