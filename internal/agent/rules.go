package agent

import (
	"slices"

	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

// HouseRule is one rule of an organisation about what it releases, beside the law. An empty list fits everything.
type HouseRule struct {
	Purposes         []disclosure.Purpose
	RequesterDomains []disclosure.Domain
	Categories       []disclosure.Category
	Never            bool // withhold; otherwise release what the permit allows
}

func (r HouseRule) fits(p receipt.Permit, category disclosure.Category) bool {
	return fits(r.Purposes, p.Purpose) && fits(r.RequesterDomains, p.Requester.Domain) && fits(r.Categories, category)
}

func fits[T comparable](list []T, value T) bool {
	return len(list) == 0 || slices.Contains(list, value)
}

// applyRules splits the fields of a permit into those to read and those that the house withholds. The first rule that
// fits a category decides about it; where none fits, it is released.
func applyRules(rules []HouseRule, p receipt.Permit) (read []disclosure.Field, withheld []disclosure.Withheld) {
	for _, field := range p.Fields {
		i := slices.IndexFunc(rules, func(r HouseRule) bool { return r.fits(p, field.Category()) })
		if i >= 0 && rules[i].Never {
			withheld = append(withheld, withhold(field, disclosure.ReasonHouseRule))
			continue
		}
		read = append(read, field)
	}
	return read, withheld
}

func withhold(field disclosure.Field, code disclosure.ReasonCode) disclosure.Withheld {
	return disclosure.Withheld{Field: field, Reason: disclosure.Reason{Code: code}}
}
