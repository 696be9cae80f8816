// Command manifests checks YAML files for Kubernetes against the types of its API: each document has to be of a kind
// that it knows, each field has to exist there, once, and be of its type. It prints the kinds and names of what it read.
//
//	manifests <file>...
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	for _, file := range os.Args[1:] {
		if err := check(file); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			os.Exit(1)
		}
	}
}

func check(file string) error {
	kinds := runtime.NewScheme()
	if err := errors.Join(apps.AddToScheme(kinds), core.AddToScheme(kinds), policy.AddToScheme(kinds)); err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(kinds, serializer.EnableStrict).UniversalDeserializer()
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for documents := yaml.NewYAMLReader(bufio.NewReader(f)); ; {
		document, err := documents.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return err
		}
		named, err := meta.Accessor(object)
		if err != nil {
			return err
		}
		fmt.Println(kind.Kind, named.GetName())
	}
}
