{{ config(pre_hook='select 1 as before_customers', post_hook='select 1 as after_customers') }}
select customers.customer_id, customers.country, firsts.first_ordered_at
from {{ ref('stg_customers') }} customers
left join {{ ref('int_first_orders') }} firsts on firsts.customer_id = customers.customer_id
