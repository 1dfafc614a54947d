/*
 * parser.cc - a typical C++ program: reads JSON into trees of maps, vectors and
 * strings, changes them and drops them, several times over.
 */
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

struct Value {
    std::map<std::string, std::unique_ptr<Value>> members;
    std::vector<std::unique_ptr<Value>> elements;
    std::string text;
};

using Pointer = std::unique_ptr<Value>;

class Parser
{
  public:
    explicit Parser(const std::string &text) : at(text.c_str())
    {
    }

    Pointer value()
    {
        auto result = std::make_unique<Value>();

        skip();
        if (*at == '{') {
            object(*result);
        } else if (*at == '[') {
            array(*result);
        } else if (*at == '"') {
            result->text = string();
        } else {
            while (std::isalnum((unsigned char)*at) || *at == '.' ||
                   *at == '-') {
                result->text += *at++;
            }
        }
        return result;
    }

  private:
    void skip()
    {
        while (std::isspace((unsigned char)*at)) {
            at++;
        }
    }

    bool is(char c)
    {
        skip();
        if (*at != c) {
            return false;
        }
        at++;
        return true;
    }

    void need(char c)
    {
        if (!is(c)) {
            std::fprintf(stderr, "no %c at %.20s\n", c, at);
            std::exit(1);
        }
    }

    std::string string()
    {
        std::string result;

        need('"');
        while (*at != '"' && *at != '\0') {
            result += *at++;
        }
        need('"');
        return result;
    }

    void object(Value &into)
    {
        need('{');
        while (!is('}')) {
            std::string name = string();

            need(':');
            into.members[name] = value();
            is(',');
        }
    }

    void array(Value &into)
    {
        need('[');
        while (!is(']')) {
            into.elements.push_back(value());
            is(',');
        }
    }

    const char *at;
};

static size_t weigh(const Value &value)
{
    size_t sum = value.text.size() + 1;

    for (const auto &member : value.members) {
        sum += member.first.size() + weigh(*member.second);
    }
    for (const auto &element : value.elements) {
        sum += weigh(*element);
    }
    return sum;
}

int main(int argc, char **argv)
{
    size_t sum = 0;

    for (int turn = 0; turn < 3; turn++) {
        std::ifstream file(argc > 1 ? argv[1] : "data.json");
        std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
        Pointer value = Parser(text).value();

        for (size_t i = 0; i < value->elements.size(); i += 3) {
            value->elements[i]->members["again"] = std::make_unique<Value>();
            value->elements[i]->members.erase("tags");
        }
        sum += weigh(*value);
    }
    std::printf("%zu\n", sum);
    return sum > 0 ? 0 : 1;
}
