package coordinator

import (
	"reflect"
	"testing"
)

// Agents differ when any field does; no labels are no labels.
func TestAgentEqual(t *testing.T) {
	a := Agent{Node: "n", Labels: map[string]string{}}
	b := Agent{Node: "n"}
	if !a.Equal(&b) {
		t.Error("the same agent")
	}
	for i := range reflect.TypeFor[Agent]().NumField() {
		c := b
		switch f := reflect.ValueOf(&c).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("another")
		case reflect.Int, reflect.Int64:
			f.SetInt(7)
		case reflect.Uint32:
			f.SetUint(7)
		default:
			f.Set(reflect.ValueOf(map[string]string{"rack": "7"}))
		}
		if a.Equal(&c) || c.Equal(&a) {
			t.Errorf("another %s", reflect.TypeFor[Agent]().Field(i).Name)
		}
	}
}
