{% macro clean_up() %}
  {% do run_query("select 1 as cleaning_up") %}
{% endmacro %}
