// The metrics file: valid JSON whatever happens, numbers that read back exactly.
#include "base/status.h"
#include "temporary.h"
#include "train/metrics.h"
#include "train/place.h"
#include <cmath>
#include <jansson.h>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/trainer.h"
#pragma GCC diagnostic pop

namespace
{
class Metrics : public ::testing::Test
{
  protected:
    void open(int is_append)
    {
        ASSERT_EQ(tv_metrics_open(path.c_str(), is_append, &metrics), TV_OK) << tv_error_message();
    }
    void TearDown() override
    {
        tv_metrics_close(metrics);
        for (json_t *line : lines)
            json_decref(line);
    }
    // Parsed while the file is still open: each line must be out.
    const std::vector<json_t *> &parse()
    {
        const std::string content = dir.read("sub/run.jsonl");
        size_t from = 0;
        for (size_t end; (end = content.find('\n', from)) != std::string::npos; from = end + 1) {
            json_error_t error;
            json_t *line = json_loadb(content.data() + from, end - from, 0, &error);
            EXPECT_NE(line, nullptr) << error.text << ": " << content.substr(from, end - from);
            lines.push_back(line);
        }
        EXPECT_EQ(from, content.size()) << "the last line is not whole";
        return lines;
    }
    static std::string type(const json_t *line)
    {
        return json_string_value(json_object_get(line, "type"));
    }
    static double number(const json_t *line, const char *key)
    {
        return json_number_value(json_object_get(line, key));
    }

    Temporary dir;
    std::string path = dir.path("sub/run.jsonl"); // the folder is made
    tv_metrics *metrics = nullptr;
    std::vector<json_t *> lines;
};

tv_step_report report_of(int64_t step, double loss)
{
    tv_step_report report = {};
    report.step = step;
    report.loss = loss;
    report.grad_norm = 0.1;
    report.lr = 2.0 / 3000;
    report.counted_tokens = 5000000000;
    report.global_batch = 16;
    report.consumed_samples = 16 * step;
    report.step_seconds = 0.25;
    report.tokens_per_second = 1e5 / 3;
    report.model_flops_per_second = 1.5e12;
    report.bubble_fraction = 0.2;
    report.peak_memory_bytes = 123456789012;
    return report;
}
} // namespace

const tv_eval_report evaluated = {{1.0 / 3, 77}, 1, {{1.0 / 3, 77}}, {"v.bin"}};

TEST_F(Metrics, EveryKindOfLine)
{
    open(0);
    const double loss = 5.6205673360659671;
    const auto report = report_of(3, loss);
    ASSERT_EQ(tv_metrics_object(metrics, "config", json_pack("{s:i}", "pp", 2)), TV_OK);
    ASSERT_EQ(tv_metrics_step(metrics, &report), TV_OK);
    ASSERT_EQ(tv_metrics_eval(metrics, 3, &evaluated), TV_OK);
    ASSERT_EQ(tv_metrics_save(metrics, 3, "out/step-\"3\""), TV_OK);
    ASSERT_EQ(tv_metrics_end(metrics, TV_OK), TV_OK);
    const auto &got = parse();
    ASSERT_EQ(got.size(), 5u);
    EXPECT_EQ(type(got[0]), "config");
    EXPECT_EQ(number(got[0], "pp"), 2);
    EXPECT_EQ(type(got[1]), "step");
    EXPECT_EQ(number(got[1], "step"), 3);
    EXPECT_EQ(number(got[1], "loss"), loss);
    EXPECT_EQ(number(got[1], "grad_norm"), 0.1);
    EXPECT_EQ(number(got[1], "lr"), 2.0 / 3000);
    EXPECT_EQ(number(got[1], "counted_tokens"), 5000000000.0);
    EXPECT_EQ(number(got[1], "consumed_samples"), 48);
    EXPECT_EQ(number(got[1], "global_batch_size"), 16);
    EXPECT_TRUE(json_is_false(json_object_get(got[1], "skipped")));
    EXPECT_EQ(number(got[1], "step_seconds"), 0.25);
    EXPECT_EQ(number(got[1], "tokens_per_second"), 1e5 / 3);
    EXPECT_EQ(number(got[1], "model_flops_per_second"), 1.5e12);
    EXPECT_EQ(number(got[1], "bubble_fraction"), 0.2);
    EXPECT_EQ(number(got[1], "peak_memory_bytes"), 123456789012.0);
    EXPECT_TRUE(json_is_integer(json_object_get(got[1], "peak_memory_bytes")));
    EXPECT_EQ(type(got[2]), "eval");
    EXPECT_EQ(number(got[2], "loss"), 1.0 / 3);
    EXPECT_EQ(number(got[2], "counted_tokens"), 77);
    EXPECT_EQ(type(got[3]), "save");
    EXPECT_STREQ(json_string_value(json_object_get(got[3], "path")), "out/step-\"3\"");
    EXPECT_EQ(type(got[4]), "end");
    EXPECT_STREQ(json_string_value(json_object_get(got[4], "status")), "ok");
    EXPECT_EQ(number(got[4], "step"), 3);
    EXPECT_EQ(dir.read("sub/run.jsonl").rfind("{\"type\":\"config\",\"pp\":2}\n", 0), 0u);
}

TEST_F(Metrics, NamesOfFilesNeedNotBeUtf8)
{
    open(0);
    ASSERT_EQ(tv_metrics_object(metrics, "config",
                                json_pack("{s:o, s:o, s:o}", "data", tv_metrics_text("a/\xff.txt"),
                                          "valid_data", tv_metrics_text(nullptr), "init_from",
                                          tv_metrics_text("\xc3\xa9"))),
              TV_OK);
    const json_t *config = parse().at(0);
    EXPECT_STREQ(json_string_value(json_object_get(config, "data")), "a/?.txt");
    EXPECT_TRUE(json_is_null(json_object_get(config, "valid_data")));
    EXPECT_STREQ(json_string_value(json_object_get(config, "init_from")), "\xc3\xa9");
}

TEST_F(Metrics, SeveralValidationFilesStandBesideTheirMean)
{
    tv_eval_report report = {};
    report.all = {2.5, 4};
    report.num_files = 2;
    report.files[0] = {1, 1};
    report.files[1] = {3, 3};
    report.names[0] = "a.bin";
    report.names[1] = "b\xff";
    open(0);
    ASSERT_EQ(tv_metrics_eval(metrics, 8, &report), TV_OK);
    const json_t *line = parse().at(0), *files = json_object_get(line, "files");
    EXPECT_EQ(number(line, "loss"), 2.5);
    ASSERT_EQ(json_array_size(files), 2u);
    EXPECT_EQ(number(json_array_get(files, 1), "loss"), 3);
    EXPECT_EQ(number(json_array_get(files, 1), "counted_tokens"), 3);
    EXPECT_STREQ(json_string_value(json_object_get(json_array_get(files, 0), "file")), "a.bin");
    EXPECT_STREQ(json_string_value(json_object_get(json_array_get(files, 1), "file")), "b?");
}

static void expect_place(const json_t *line)
{
    const json_t *rank = json_array_get(json_object_get(line, "ranks"), 2);
    EXPECT_STREQ(json_string_value(json_object_get(rank, "node")), "n66");
    EXPECT_STREQ(json_string_value(json_object_get(rank, "binding")), "own");
    EXPECT_STREQ(json_string_value(json_object_get(rank, "cpus")), "4-5");
    EXPECT_STREQ(json_string_value(json_object_get(rank, "memory")), "1");
    const json_t *predicted = json_object_get(line, "predicted_seconds");
    EXPECT_EQ(json_real_value(json_object_get(json_object_get(predicted, "chosen"), "total")),
              0.25);
    EXPECT_EQ(json_real_value(json_object_get(json_object_get(predicted, "identity"), "tensor")),
              0.5);
}

TEST_F(Metrics, TheStartTellsWhatTheRunIsAndWhoSitsWhere)
{
    tv_run run = {};
    run.extent = {{2, 1, 2}};
    run.options.schedule = "1f1b";
    run.options.partition = "uniform";
    run.options.optimizer = "adam";
    run.options.lr_decay_style = "cosine";
    run.options.wsd_decay_style = "exponential";
    run.options.rampup_batch = "4,4,40";
    run.options.data = {1, {"a.bin"}};
    run.lr[TV_LR_BODY].lr = 3e-3;
    run.data_format = TV_TOKENS_U16;
    run.model.num_layers = 8;
    run.model.vocab_size = 257;
    run.seq_length = 32;
    run.global_batch = 16;
    int order[] = {3, 1, 0, 2}, node_of[] = {0, 0, 1, 1};
    char names[][TV_TOPO_NAME] = {"n7", "n66"};
    struct tv_binding bindings[4] = {};
    bindings[2] = {.kind = TV_BIND_OWN, .num_cpus = 2, .place = 0, .cpus = "4-5", .memory = "1"};
    struct tv_run_place place = {};
    place.placement = {4, order};
    place.nodes.names = names;
    place.nodes.node_of = node_of;
    place.bindings = bindings;
    place.chosen.total = 0.25;
    place.identity.axis[TV_TENSOR] = 0.5;
    open(0);
    run.options.placement = "identity";
    ASSERT_EQ(tv_metrics_start(metrics, &run), TV_OK) << tv_error_message();
    run.options.placement = "auto";
    run.place = &place;
    ASSERT_EQ(tv_metrics_start(metrics, &run), TV_OK) << tv_error_message();
    const auto &got = parse();
    ASSERT_EQ(got.size(), 4u);
    EXPECT_EQ(type(got[0]), "config");
    EXPECT_EQ(number(got[0], "pp"), 2);
    EXPECT_EQ(number(got[0], "dp"), 1);
    EXPECT_EQ(number(got[0], "tp"), 2);
    EXPECT_EQ(number(got[0], "global_batch_size"), 16);
    EXPECT_EQ(number(json_object_get(got[0], "model"), "vocab_size"), 257);
    EXPECT_EQ(number(json_object_get(got[0], "optimizer"), "lr"), 3e-3);
    EXPECT_STREQ(json_string_value(json_object_get(got[0], "rampup_batch_size")), "4,4,40");
    EXPECT_STREQ(json_string_value(json_object_get(json_object_get(got[0], "data"), "data_format")),
                 "u16");
    const int want[2][4] = {{0, 1, 2, 3}, {3, 1, 0, 2}}; // p, t as bits of the mesh rank
    for (size_t line : {1u, 3u}) {
        EXPECT_EQ(type(got[line]), "placement");
        const json_t *all = json_object_get(got[line], "coordinates");
        ASSERT_EQ(json_array_size(all), 4u);
        for (size_t r = 0; r < 4; r++) {
            const json_t *at = json_array_get(all, r);
            EXPECT_EQ(json_integer_value(json_array_get(at, 0)), want[line / 2][r] / 2);
            EXPECT_EQ(json_integer_value(json_array_get(at, 1)), 0);
            EXPECT_EQ(json_integer_value(json_array_get(at, 2)), want[line / 2][r] % 2);
        }
    }
    expect_place(got[3]);
}

TEST_F(Metrics, WhatIsNotFiniteIsNull)
{
    open(0);
    for (double loss : {(double)NAN, (double)INFINITY, -(double)INFINITY}) {
        const auto report = report_of(1, loss);
        ASSERT_EQ(tv_metrics_step(metrics, &report), TV_OK);
    }
    ASSERT_EQ(tv_metrics_end(metrics, TV_NUMERIC), TV_OK);
    const auto &got = parse();
    ASSERT_EQ(got.size(), 4u);
    for (size_t i = 0; i < 3; i++) {
        EXPECT_TRUE(json_is_null(json_object_get(got[i], "loss")));
        EXPECT_EQ(number(got[i], "grad_norm"), 0.1);
    }
    EXPECT_STREQ(json_string_value(json_object_get(got[3], "status")), "failed");
}

TEST_F(Metrics, AFreshStartTruncatesAndAResumedRunAppends)
{
    open(0);
    auto report = report_of(1, 1);
    ASSERT_EQ(tv_metrics_step(metrics, &report), TV_OK);
    tv_metrics_close(metrics);
    open(1);
    report = report_of(2, 1);
    ASSERT_EQ(tv_metrics_step(metrics, &report), TV_OK);
    ASSERT_EQ(tv_metrics_end(metrics, TV_STOPPED), TV_OK);
    ASSERT_EQ(parse().size(), 3u);
    EXPECT_EQ(number(lines[0], "step"), 1);
    EXPECT_EQ(number(lines[1], "step"), 2);
    EXPECT_STREQ(json_string_value(json_object_get(lines[2], "status")), "stopped");
    tv_metrics_close(metrics);
    open(0);
    EXPECT_EQ(dir.read("sub/run.jsonl"), "");
}

TEST_F(Metrics, FailuresAreTold)
{
    EXPECT_EQ(tv_metrics_open(dir.path("").c_str(), 0, &metrics), TV_INVALID);
    dir.write("plain", "");
    EXPECT_EQ(tv_metrics_open(dir.path("plain/run.jsonl").c_str(), 0, &metrics), TV_INVALID);
    expect_message_has("plain", tv_error_message());
    EXPECT_EQ(metrics, nullptr);
    ASSERT_EQ(tv_metrics_open("/dev/full", 0, &metrics), TV_OK);
    EXPECT_EQ(tv_metrics_eval(metrics, 1, &evaluated), TV_IO);
    expect_message_has("/dev/full", tv_error_message());
    EXPECT_EQ(tv_metrics_object(metrics, "config", nullptr), TV_NO_MEMORY);
}

TEST_F(Metrics, NoFileIsFine)
{
    const auto report = report_of(1, 1);
    EXPECT_EQ(tv_metrics_step(nullptr, &report), TV_OK);
    EXPECT_EQ(tv_metrics_eval(nullptr, 1, &evaluated), TV_OK);
    EXPECT_EQ(tv_metrics_save(nullptr, 1, "x"), TV_OK);
    EXPECT_EQ(tv_metrics_end(nullptr, TV_OK), TV_OK);
    tv_metrics_close(nullptr);
}
