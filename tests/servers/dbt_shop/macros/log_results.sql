{% macro log_results(results) %}
  select {{ results | length }} as results_of_the_run
{% endmacro %}
