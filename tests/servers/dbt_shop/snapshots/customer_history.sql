{% snapshot customer_history %}
{{ config(target_schema=target.schema, unique_key='customer_id', strategy='check', check_cols=['country']) }}
select customer_id, country
from {{ ref('stg_customers') }}
{% endsnapshot %}
