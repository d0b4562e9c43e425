{{ config(materialized='table', tags=['odd']) }}
select count(*) as n
from {{ ref('broken') }}
