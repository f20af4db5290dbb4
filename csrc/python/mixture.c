#include "python/mixture.h"
#include "python/convert.h"

static const char *const expert_keys[] = {"gate", "up", "down", "gate_bias", "up_bias", "down_bias", NULL};
static const char *const routes[] = {[ROUTE_SOFTMAX] = "softmax", [ROUTE_SIGMOID] = "sigmoid", [ROUTE_SPARSEMIXER] = "sparsemixer", NULL};
_Static_assert(COUNT(routes) == ROUTE_SPARSEMIXER + 2, "a string for every kind");

int parse_mixture(spec *m, PyObject *dict) {
    int route = ROUTE_SOFTMAX;
    m->route_scale = 1;
    m->n_groups = m->top_groups = 1;
    if (!item(dict, "n_experts")) return 0;
    if (get_size(dict, "n_experts", &m->n_experts) || get_size(dict, "top_k", &m->top_k)
        || get_size(dict, "d_expert", &m->d_expert) || get_flag(dict, "norm_topk", &m->norm_topk)
        || (item(dict, "d_shared") && get_size(dict, "d_shared", &m->d_shared))
        || (item(dict, "route") && get_choice(dict, "route", routes, &route))
        || (item(dict, "route_scale") && get_double(dict, "route_scale", &m->route_scale))
        || (item(dict, "route_jitter") && get_double(dict, "route_jitter", &m->route_jitter))
        || (item(dict, "n_groups") && (get_size(dict, "n_groups", &m->n_groups) || get_size(dict, "top_groups", &m->top_groups)))
        || (item(dict, "scale_input") && get_flag(dict, "scale_input", &m->scale_input)))
        return -1;
    m->route = (route_kind)route;
    if (!m->n_experts) return 0;
    if (!m->d_expert || m->top_k < 1 || m->top_k > m->n_experts)
        return invalid("top_k = %zu must be between 1 and n_experts = %zu, and d_expert = %zu positive", m->top_k,
                       m->n_experts, m->d_expert);
    if (!m->n_groups || m->n_experts % m->n_groups || m->top_groups > m->n_groups || m->top_k > m->n_experts / m->n_groups * m->top_groups)
        return invalid("n_groups = %zu must divide n_experts = %zu, and top_groups = %zu groups hold top_k = %zu experts", m->n_groups,
                       m->n_experts, m->top_groups, m->top_k);
    if (m->route_scale <= 0 || m->route_jitter < 0) return invalid("route_scale must be positive, and route_jitter not negative");
    return 0;
}

static int parse_expert(const spec *m, PyObject *one, size_t F, expert *e, PyObject *keep) {
    return known_keys(one, "an expert", expert_keys)
        || get_weight(item(one, "gate"), "an expert's gate", F, m->d_model, m->gated, &e->gate, keep)
        || get_weight(item(one, "up"), "an expert's up", F, m->d_model, 1, &e->up, keep)
        || get_weight(item(one, "down"), "an expert's down", m->d_model, F, 1, &e->down, keep)
        || get_vector(item(one, "gate_bias"), "an expert's gate_bias", F, &e->gate_bias, keep)
        || get_vector(item(one, "up_bias"), "an expert's up_bias", F, &e->up_bias, keep)
        || get_vector(item(one, "down_bias"), "an expert's down_bias", m->d_model, &e->down_bias, keep) ? -1 : 0;
}

int parse_experts(const spec *m, PyObject *dict, layer_spec *y, expert *experts, PyObject *keep) {
    PyObject *router = item(dict, "router"), *list = item(dict, "experts");
    if (!router && !list) return 0;
    if (!router || !list || !PyList_Check(list) || (size_t)PyList_GET_SIZE(list) != m->n_experts)
        return invalid("a mixture needs a router and a list of n_experts = %zu experts", m->n_experts);
    if (get_weight(router, "router", m->n_experts, m->d_model, 1, &y->router, keep)
        || get_vector(item(dict, "router_bias"), "router_bias", m->n_experts, &y->router_bias, keep)
        || get_vector(item(dict, "correction"), "correction", m->n_experts, &y->correction, keep)
        || get_weight(item(dict, "shared_gate"), "shared_gate", 1, m->d_model, 0, &y->shared_gate, keep))
        return -1;
    if (!item(dict, "shared") != !m->d_shared || (y->shared_gate.data && !m->d_shared))
        return invalid("a shared expert and its gate must be given if 'd_shared' is positive, and neither if it is not");
    if (m->d_shared && parse_expert(m, item(dict, "shared"), m->d_shared, &y->shared, keep)) return -1;
    for (size_t e = 0; e < m->n_experts; e++)
        if (parse_expert(m, PyList_GET_ITEM(list, (Py_ssize_t)e), m->d_expert, &experts[e], keep)) return -1;
    y->experts = experts;
    return 0;
}
