/* mesh/topology_topograph.c -- the network from a model of NVIDIA's topograph, in YAML:
 *
 *   switches: {NAME: {switches: [NAME, ...]}, ...}
 *   blocks: [{switch: NAME, nodes: ["n[1-18]", ...], annotations: {.../domain: NAME}}, ...]
 *
 * A domain of accelerators is an NVLink domain, which may span switches; other keys are passed over. */
#include "mesh/topology_internal.h"
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
    struct tv_network *network;
    yaml_document_t *document;
    int line, leaf, domain; /* of the block */
};

static int line_of(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

static tv_status_t refuse(const struct reader *reader, const yaml_node_t *node, const char *wanted)
{
    return TV_ERR(TV_BAD_FILE, "%s:%d: not %s", reader->network->path, line_of(node), wanted);
}

/* The text of a scalar, or NULL. */
static const char *text_of(const yaml_node_t *node)
{
    if (node == NULL || node->type != YAML_SCALAR_NODE ||
        strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
        return NULL;
    return (const char *)node->data.scalar.value;
}

/* The value at a key that ends with `suffix`, or NULL. */
static yaml_node_t *find(const struct reader *reader, const yaml_node_t *map, const char *suffix)
{
    if (map == NULL || map->type != YAML_MAPPING_NODE)
        return NULL;
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top;
         pair++) {
        const char *key = text_of(yaml_document_get_node(reader->document, pair->key));
        if (key != NULL && strlen(key) >= strlen(suffix) &&
            strcmp(key + strlen(key) - strlen(suffix), suffix) == 0)
            return yaml_document_get_node(reader->document, pair->value);
    }
    return NULL;
}

/* Call `take` with each name of a list of names and ranges of names; NULL is an empty list. */
static tv_status_t each_name(struct reader *reader, const yaml_node_t *list,
                             tv_status_t (*take)(void *context, const char *name))
{
    if (list == NULL)
        return TV_OK;
    if (list->type != YAML_SEQUENCE_NODE)
        return refuse(reader, list, "a list of names");
    for (yaml_node_item_t *item = list->data.sequence.items.start;
         item < list->data.sequence.items.top; item++) {
        const yaml_node_t *node = yaml_document_get_node(reader->document, *item);
        const char *name = text_of(node);
        if (name == NULL)
            return refuse(reader, list, "a list of names");
        reader->line = line_of(node);
        TV_TRY(tv_hostlist_each(name, reader->network->path, reader->line, take, reader));
    }
    return TV_OK;
}

static tv_status_t take_switch(void *context, const char *name)
{
    const struct reader *reader = context;
    int child;
    TV_TRY(tv_network_switch(reader->network, name, reader->line, &child));
    return tv_network_join(reader->network, child, reader->leaf, reader->line);
}

static tv_status_t take_node(void *context, const char *name)
{
    const struct reader *reader = context;
    return tv_network_add_node(reader->network, name, reader->leaf, reader->domain, reader->line);
}

static tv_status_t read_switches(struct reader *reader, const yaml_node_t *switches)
{
    if (switches == NULL)
        return TV_OK;
    if (switches->type != YAML_MAPPING_NODE)
        return refuse(reader, switches, "a map of switches");
    for (yaml_node_pair_t *pair = switches->data.mapping.pairs.start;
         pair < switches->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        const char *name = text_of(key);
        if (name == NULL)
            return refuse(reader, key, "the name of a switch");
        TV_TRY(tv_network_switch(reader->network, name, line_of(key), &reader->leaf));
        TV_TRY(each_name(reader, find(reader, value, "switches"), take_switch));
    }
    return TV_OK;
}

static tv_status_t read_block(struct reader *reader, const yaml_node_t *block)
{
    if (block == NULL || block->type != YAML_MAPPING_NODE)
        return TV_ERR(TV_BAD_FILE, "%s: a block that is no map", reader->network->path);
    const char *leaf = text_of(find(reader, block, "switch"));
    const yaml_node_t *notes = find(reader, block, "annotations");
    const char *domain = text_of(find(reader, notes, "/domain"));
    reader->leaf = reader->domain = -1;
    if (leaf != NULL)
        TV_TRY(tv_network_switch(reader->network, leaf, line_of(block), &reader->leaf));
    if (domain != NULL)
        TV_TRY(tv_network_domain(reader->network, domain, line_of(notes), &reader->domain));
    return each_name(reader, find(reader, block, "nodes"), take_node);
}

static tv_status_t read_document(struct reader *reader)
{
    const yaml_node_t *root = yaml_document_get_root_node(reader->document);
    const yaml_node_t *blocks = find(reader, root, "blocks");
    if (blocks == NULL || blocks->type != YAML_SEQUENCE_NODE)
        return TV_ERR(TV_BAD_FILE,
                      "%s: no list of \"blocks\": neither a model of topograph nor Slurm's "
                      "topology.conf",
                      reader->network->path);
    TV_TRY(read_switches(reader, find(reader, root, "switches")));
    for (yaml_node_item_t *item = blocks->data.sequence.items.start;
         item < blocks->data.sequence.items.top; item++)
        TV_TRY(read_block(reader, yaml_document_get_node(reader->document, *item)));
    return TV_OK;
}

tv_status_t tv_network_parse_topograph(const struct tv_text *text, struct tv_network *network)
{
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser))
        return TV_ERR(TV_NO_MEMORY, "%s: a parser", text->path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text->data, text->bytes);
    tv_status_t status = TV_OK;
    if (!yaml_parser_load(&parser, &document)) {
        status = TV_ERR(TV_BAD_FILE, "%s:%zu: %s", text->path, parser.problem_mark.line + 1,
                        parser.problem != NULL ? parser.problem : "not YAML");
    } else {
        struct reader reader = {.network = network, .document = &document};
        status = read_document(&reader);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return status;
}
