{{ config(materialized='ephemeral') }}
select order_id, sum(item_cents) as order_cents, count(*) as item_count
from {{ ref('int_priced_items') }}
group by order_id
